// Serves the files of the current directory, and keeps what is sent to /upload as a file in uploads/.
//
//	web PORT
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	http.Handle("/", http.FileServer(http.Dir(".")))
	http.HandleFunc("/upload", func(answer http.ResponseWriter, request *http.Request) {
		file, err := os.Create("uploads/one")
		if err != nil {
			log.Fatal(err)
		}
		defer file.Close()
		if _, err := io.Copy(file, request.Body); err != nil {
			log.Fatal(err)
		}
		io.WriteString(answer, "kept")
	})
	log.Fatal(http.ListenAndServe(":"+os.Args[1], nil))
}
