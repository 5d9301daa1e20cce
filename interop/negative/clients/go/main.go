// The gRPC calls of the negative suite on grpc-go: a job a line on stdin, its answers a line on stdout.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type call struct {
	Path     string      `json:"path"`
	Send     int         `json:"send"`
	Size     int         `json:"size"`
	Gap      int         `json:"gap"`
	Deadline float64     `json:"deadline"`
	Cancel   string      `json:"cancel"`
	After    int         `json:"after"`
	Lockstep bool        `json:"lockstep"`
	Slow     int         `json:"slow"`
	Pad      int         `json:"pad"`
	Headers  [][2]string `json:"headers"`
}

type job struct {
	Port     int    `json:"port"`
	Calls    []call `json:"calls"`
	Parallel bool   `json:"parallel"`
}

type answer struct {
	Grpc     int     `json:"grpc"`
	Text     string  `json:"text"`
	Messages int     `json:"messages"`
	Size     int     `json:"size"`
	Crc      uint32  `json:"crc"`
	Pad      int     `json:"pad"`
	Extra    string  `json:"extra"`
	Seconds  float64 `json:"seconds"`
}

// raw passes bytes through.
type raw struct{}

func (raw) Name() string                      { return "raw" }
func (raw) Marshal(value any) ([]byte, error) { return value.([]byte), nil }
func (raw) Unmarshal(data []byte, into any) error {
	*into.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (a *answer) look(pairs metadata.MD) {
	for name, values := range pairs {
		for _, value := range values {
			if strings.HasPrefix(name, "x-pad") {
				a.Pad += len(value)
			}
			if name == "x-neg-bin" {
				a.Extra = hex.EncodeToString([]byte(value))
			}
		}
	}
}

func send(stream grpc.ClientStream, c call, gate chan struct{}) {
	for at := 0; at < c.Send; at++ {
		if at > 0 {
			time.Sleep(time.Duration(c.Gap) * time.Millisecond)
		}
		if stream.SendMsg(make([]byte, c.Size)) != nil {
			return
		}
		if c.Lockstep {
			select {
			case <-gate:
			case <-stream.Context().Done():
				return
			}
		}
	}
	_ = stream.CloseSend()
}

func ask(conn *grpc.ClientConn, c call) (a answer) {
	began := time.Now()
	defer func() { a.Seconds = time.Since(began).Seconds() }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.Deadline*float64(time.Second)))
	defer cancel()
	for _, pair := range c.Headers {
		ctx = metadata.AppendToOutgoingContext(ctx, pair[0], pair[1])
	}
	for at := 0; at < c.Pad; at += 4000 {
		ctx = metadata.AppendToOutgoingContext(ctx, fmt.Sprintf("x-pad-%d", at), strings.Repeat("p", min(4000, c.Pad-at)))
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, c.Path)
	if err == nil {
		gate := make(chan struct{}, c.Send)
		if c.Cancel == "start" {
			time.AfterFunc(time.Duration(c.After)*time.Millisecond, cancel)
		}
		go send(stream, c, gate)
		for err == nil {
			time.Sleep(time.Duration(c.Slow) * time.Millisecond)
			var message []byte
			if err = stream.RecvMsg(&message); err == nil {
				a.Messages++
				a.Size += len(message)
				a.Crc = crc32.Update(a.Crc, crc32.IEEETable, message)
				if len(gate) < cap(gate) {
					gate <- struct{}{}
				}
				if c.Cancel == "message" {
					cancel()
				}
			}
		}
		if head, failed := stream.Header(); failed == nil {
			a.look(head)
		}
		a.look(stream.Trailer())
	}
	if err != nil && err.Error() != "EOF" {
		known := status.Convert(err)
		a.Grpc, a.Text = int(known.Code()), known.Message()
	}
	return a
}

func do(asked job) []answer {
	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", asked.Port),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(1<<30)),
		grpc.WithInitialWindowSize(65535), grpc.WithInitialConnWindowSize(65535))
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	answers := make([]answer, len(asked.Calls))
	var group sync.WaitGroup
	for at := range asked.Calls {
		if !asked.Parallel {
			answers[at] = ask(conn, asked.Calls[at])
			continue
		}
		group.Add(1)
		go func() {
			defer group.Done()
			answers[at] = ask(conn, asked.Calls[at])
		}()
	}
	group.Wait()
	return answers
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked job
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		if err := out.Encode(do(asked)); err != nil {
			panic(err)
		}
	}
}
