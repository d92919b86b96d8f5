// SPDX-License-Identifier: BSD-2-Clause
// net/http as its documentation shows it. It knows nothing of gapless.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	version := os.Getenv("GAPLESS_GENERATION")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, version) })
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
