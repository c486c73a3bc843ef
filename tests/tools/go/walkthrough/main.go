// Package walkthrough drives a CSI plugin through the whole life of one volume, the way a person does with csc.
//
// The two programs beside it differ only in their gRPC library and in how they connect; this package holds the calls that
// they make over the connection.
package walkthrough

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
)

// Connect opens a client connection to an endpoint that is written as csc accepts it.
type Connect func(endpoint string) (*grpc.ClientConn, error)

// Main runs the walk-through against every endpoint on the command line and exits 0 only if no step failed.
func Main(client string, connect Connect) {
	work := flag.String("work", "", "existing directory for staging and target paths")
	flag.Usage = func() {
		fmt.Fprintf(os.Stderr, "usage: %s -work DIR ENDPOINT...\n", os.Args[0])
		flag.PrintDefaults()
	}
	flag.Parse()
	if *work == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}

	passed, failed := 0, 0
	for _, endpoint := range flag.Args() {
		fmt.Printf("%s (grpc-go %s) at %s\n", client, grpc.Version, endpoint)
		p, f := at(endpoint, *work, connect)
		passed, failed = passed+p, failed+f
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func at(endpoint, work string, connect Connect) (passed, failed int) {
	conn, err := connect(endpoint)
	if err != nil {
		fmt.Printf("  FAILED  connect: %v\n", err)
		return 0, 1
	}
	defer conn.Close()

	w := newWalk(conn, work)
	defer w.cleanUp()
	for _, step := range w.steps() {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		began := time.Now()
		seen, err := step.run(ctx)
		took := time.Since(began).Round(time.Millisecond)
		cancel()
		if err != nil {
			fmt.Printf("  FAILED  %-28s %6s  %v\n", step.name, took, err)
			// Every step needs the one before it.
			return passed, failed + 1
		}
		fmt.Printf("  ok      %-28s %6s  %s\n", step.name, took, seen)
		passed++
	}
	return passed, failed
}
