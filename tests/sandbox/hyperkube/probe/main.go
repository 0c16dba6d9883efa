// Probe is what the smoke test runs in pods: a server that says who it is and keeps a file on
// its volume, and a client that asks it.
//
//	probe serve DIRECTORY   append a line to DIRECTORY/visits, answer on :8080 with a JSON object
//	probe get URL           print the answer's body; exit 1 unless it is 200
//	probe resolve NAME      print the addresses of NAME, one a line
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// identity is what a pod can tell of itself; RootWritable and Visits are what it tried.
type identity struct {
	Host         string `json:"host"`
	UID          int    `json:"uid"`
	GID          int    `json:"gid"`
	RootWritable bool   `json:"root_writable"`
	Visits       int64  `json:"visits"`
}

func recordVisit(directory string) (int64, error) {
	file, err := os.OpenFile(filepath.Join(directory, "visits"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	if _, err := file.Write([]byte{'\n'}); err != nil {
		return 0, err
	}
	if err := file.Sync(); err != nil {
		return 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func serve(directory string) error {
	visits, err := recordVisit(directory)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	me := identity{Host: host, UID: os.Getuid(), GID: os.Getgid(), Visits: visits}
	me.RootWritable = os.WriteFile("/written", nil, 0o600) == nil
	http.HandleFunc("/", func(response http.ResponseWriter, _ *http.Request) {
		response.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(response).Encode(me); err != nil {
			fmt.Fprintln(os.Stderr, "answer:", err)
		}
	})
	fmt.Println("serving on :8080")
	return http.ListenAndServe(":8080", nil)
}

func get(url string) error {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func resolve(name string) error {
	addresses, err := net.LookupHost(name)
	for _, address := range addresses {
		fmt.Println(address)
	}
	return err
}

func main() {
	commands := map[string]func(string) error{"serve": serve, "get": get, "resolve": resolve}
	if len(os.Args) != 3 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: probe serve DIRECTORY | get URL | resolve NAME")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}
