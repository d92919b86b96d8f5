// SPDX-License-Identifier: BSD-2-Clause
// Busy clients of net/http on kept connections: client URL N. TERM ends them, each after its request; then one line of JSON says how many
// requests there were, how many failed and how, and who answered (the bodies' first lines).
//
// Its Transport sends a request again by itself, unseen, if a kept connection ends before a byte of the answer and the request may be
// repeated. A POST may not; without a body it is sent again only if not one byte of it had left, which no server can have seen.
package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type count struct {
	Attempted int             `json:"attempted"`
	Failed    map[string]int  `json:"failed"`
	By        map[string]bool `json:"by"`
}

func kindOf(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut_mid_answer"
	case errors.Is(err, io.EOF), strings.Contains(err.Error(), "server closed idle connection"):
		return "cut"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return err.Error()
}

// One request: who answered, and how it failed.
func ask(client *http.Client, url string) (string, string) {
	response, err := client.Post(url, "", nil)
	if err != nil {
		return "", kindOf(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", kindOf(err)
	}
	if response.StatusCode != http.StatusOK {
		return "", "status " + strconv.Itoa(response.StatusCode)
	}
	return strings.SplitN(string(body), "\n", 2)[0], ""
}

func main() {
	number, err := strconv.Atoi(os.Args[2])
	if err != nil {
		os.Exit(2)
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConns: number, MaxIdleConnsPerHost: number}}
	total := count{Failed: map[string]int{}, By: map[string]bool{}}
	var lock sync.Mutex
	var stopping atomic.Bool
	var all sync.WaitGroup
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	for i := 0; i < number; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for !stopping.Load() {
				who, kind := ask(client, os.Args[1])
				lock.Lock()
				total.Attempted++
				if kind == "" {
					total.By[who] = true
				} else {
					total.Failed[kind]++
				}
				lock.Unlock()
				if kind != "" {
					time.Sleep(50 * time.Millisecond)
				}
			}
		}()
	}
	<-terminated
	stopping.Store(true)
	all.Wait()
	json.NewEncoder(os.Stdout).Encode(total)
}
