// A gRPC backend that can be told to be slow, and that drains on SIGTERM.
//
// It serves grpc.testing.TestService/EmptyCall on 127.0.0.1. Each answer carries the header "served-by" and takes --work-ms;
// SIGUSR1 makes that --slow-ms, SIGUSR2 makes it --work-ms again. SIGTERM stops the server gracefully.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
)

type backend struct {
	testgrpc.UnimplementedTestServiceServer
	name string
	work atomic.Int64 // milliseconds
}

func (b *backend) EmptyCall(ctx context.Context, _ *testgrpc.Empty) (*testgrpc.Empty, error) {
	if err := grpc.SetHeader(ctx, metadata.Pairs("served-by", b.name)); err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(b.work.Load()) * time.Millisecond):
		return &testgrpc.Empty{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func main() {
	port := flag.Int("port", 0, "the port of 127.0.0.1 to listen on")
	name := flag.String("name", "", "what served-by says")
	work := flag.Int64("work-ms", 60, "how long a call takes")
	slow := flag.Int64("slow-ms", 200, "how long it takes after SIGUSR1")
	flag.Parse()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	served := &backend{name: *name}
	served.work.Store(*work)
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, served)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for told := range signals {
			switch told {
			case syscall.SIGUSR1:
				served.work.Store(*slow)
			case syscall.SIGUSR2:
				served.work.Store(*work)
			default:
				server.GracefulStop()
			}
		}
	}()
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
