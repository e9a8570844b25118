// Go: a goroutine for each connection, and for each fiber. What it is told, and what the workloads are: peer.hpp.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

const crowd = 1000
const armed = 10000

func converse(c net.Conn, bytes int) {
	defer c.Close()
	buffer := make([]byte, bytes)
	for {
		got, err := c.Read(buffer)
		if err != nil {
			return
		}
		if _, err := c.Write(buffer[:got]); err != nil {
			return
		}
	}
}

func serve(bytes int) {
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for {
		c, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		go converse(c, bytes)
	}
}

func together(count int, n int, each func()) int {
	times := (n + count - 1) / count
	var all sync.WaitGroup
	all.Add(count)
	for i := 0; i < count; i++ {
		go func() {
			for j := 0; j < times; j++ {
				each()
			}
			all.Done()
		}()
	}
	all.Wait()
	return times * count
}

func spawn(n int) int {
	ended := make(chan struct{})
	for i := 0; i < n; i++ {
		go func() { ended <- struct{}{} }()
		<-ended
	}
	return n
}

func spawn100(n int) int {
	done := 0
	for ; done < n; done += 100 {
		together(100, 100, func() {})
	}
	return done
}

func queue(n int) int {
	there, back := make(chan int, 1), make(chan int, 1)
	go func() {
		for i := 0; i < n; i++ {
			back <- <-there
		}
	}()
	for i := 0; i < n; i++ {
		there <- i
		<-back
	}
	return n
}

var others []*time.Timer

func armOthers() {
	for len(others) < armed {
		others = append(others, time.AfterFunc(2*time.Hour, func() {}))
	}
}

func timeout(n int) int {
	armOthers()
	for i := 0; i < n; i++ {
		_, cancel := context.WithTimeout(context.Background(), time.Hour)
		cancel()
	}
	return n
}

func timer(n int) int {
	armOthers()
	for i := 0; i < n; i++ {
		time.AfterFunc(time.Hour, func() {}).Stop()
	}
	return n
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "echo" {
		bytes, _ := strconv.Atoi(os.Args[2])
		serve(bytes)
	}
	work := map[string]func(int) int{
		"yield2":    func(n int) int { return together(2, n, runtime.Gosched) },
		"yield1000": func(n int) int { return together(crowd, n, runtime.Gosched) },
		"spawn":     spawn,
		"spawn100":  spawn100,
		"queue":     queue,
		"sleep1000": func(n int) int { return together(crowd, n, func() { time.Sleep(time.Millisecond) }) },
		"timer":     timer,
		"timeout":   timeout,
	}
	var name string
	var n int
	for {
		if _, err := fmt.Scan(&name, &n); err != nil {
			return
		}
		if f := work[name]; f != nil {
			fmt.Println("done", f(n))
		} else {
			fmt.Println("none")
		}
	}
}
