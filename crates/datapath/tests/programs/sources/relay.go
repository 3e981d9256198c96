// Relays TCP connections with io.Copy, which splices between them on Linux.
//
//	relay PORT ADDRESS
package main

import (
	"io"
	"log"
	"net"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", ":"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go relay(client.(*net.TCPConn), os.Args[2])
	}
}

func relay(client *net.TCPConn, to string) {
	defer client.Close()
	conn, err := net.Dial("tcp", to)
	if err != nil {
		log.Fatal(err)
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	done := make(chan struct{})
	go func() {
		oneWay(server, client)
		close(done)
	}()
	oneWay(client, server)
	<-done
}

func oneWay(to, from *net.TCPConn) {
	io.Copy(to, from)
	to.CloseWrite()
}
