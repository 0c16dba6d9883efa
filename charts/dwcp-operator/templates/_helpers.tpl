{{- define "dwcp.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "dwcp.selector" -}}
app.kubernetes.io/name: dwcp-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dwcp.labels" -}}
{{ include "dwcp.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: dwcp
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "dwcp.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* What the operator may do where clusters are: exactly what its actions need. */}}
{{- define "dwcp.rules" -}}
- apiGroups: [dwcp.dev]
  resources: [dwcpclusters, dwcpbackups]
  verbs: [get, list, watch]
- apiGroups: [dwcp.dev]
  resources: [dwcpclusters/status, dwcpbackups/status]
  verbs: [update]
# An owner reference that blocks the owner's deletion asks for this right.
- apiGroups: [dwcp.dev]
  resources: [dwcpclusters/finalizers, dwcpbackups/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
# A rolling change asks as a drain does, so that both together keep the disruption budget.
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
# By name only: Secrets of others can not be listed.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, create, patch]
# Gateways are removed when they are no longer asked for.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, create, patch]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors, prometheusrules]
  verbs: [get, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
