// A second opinion: is a history of puts, gets and deletes linearizable?
//
// Standard input holds one JSON object a line: client, kind (put, get, delete), key, value, call,
// return (null when nobody knows). A get's value is what it returned, null for no such key; a
// delete's value is whether the key was there, null when nobody knows. The verdict is printed:
// "ok", "illegal" or "unknown".
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

type line struct {
	Client int             `json:"client"`
	Kind   string          `json:"kind"`
	Key    string          `json:"key"`
	Value  json.RawMessage `json:"value"`
	Call   int64           `json:"call"`
	Return *int64          `json:"return"`
}

type action struct {
	kind, key, value string
	unknown          bool
}

// A register holds the JSON text of its value, and this one for no such key.
const absent = "null"

func step(state, input, output interface{}) (bool, interface{}) {
	before, doing := state.(string), input.(action)
	switch doing.kind {
	case "put":
		return true, doing.value
	case "get":
		return doing.value == before, before
	default:
		there := "false"
		if before != absent {
			there = "true"
		}
		return doing.unknown || doing.value == there, absent
	}
}

func byKey(history []porcupine.Operation) [][]porcupine.Operation {
	order, found := []string{}, map[string][]porcupine.Operation{}
	for _, operation := range history {
		key := operation.Input.(action).key
		if _, known := found[key]; !known {
			order = append(order, key)
		}
		found[key] = append(found[key], operation)
	}
	parts := [][]porcupine.Operation{}
	for _, key := range order {
		parts = append(parts, found[key])
	}
	return parts
}

func read() []porcupine.Operation {
	history := []porcupine.Operation{}
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(make([]byte, 1<<20), 1<<20)
	for input.Scan() {
		var one line
		if err := json.Unmarshal(input.Bytes(), &one); err != nil {
			log.Fatalf("not a line of a history: %v", err)
		}
		if one.Kind != "put" && one.Kind != "get" && one.Kind != "delete" {
			log.Fatalf("no such kind of operation: %q", one.Kind)
		}
		until, value := int64(math.MaxInt64), absent
		if one.Return != nil {
			until = *one.Return
		}
		if len(one.Value) > 0 {
			value = string(one.Value)
		}
		doing := action{one.Kind, one.Key, value, one.Kind == "delete" && value == absent}
		history = append(history, porcupine.Operation{
			ClientId: one.Client, Input: doing, Call: one.Call, Return: until,
		})
	}
	if err := input.Err(); err != nil {
		log.Fatal(err)
	}
	return history
}

func main() {
	model := porcupine.Model{
		Partition: byKey,
		Init:      func() interface{} { return absent },
		Step:      step,
	}
	switch porcupine.CheckOperationsTimeout(model, read(), 5*time.Minute) {
	case porcupine.Ok:
		fmt.Println("ok")
	case porcupine.Illegal:
		fmt.Println("illegal")
	default:
		fmt.Println("unknown")
	}
}
