package clientproto_test

import (
	"strings"
	"testing"

	"github.com/channels-go/channels/internal/clientproto"
)

func BenchmarkAppendPublication(b *testing.B) {
	for name, data := range map[string]string{
		"100 bytes": `{"text":"` + strings.Repeat("word ", 18) + `"}`,
		"4 KiB":     `{"text":"` + strings.Repeat("word ", 820) + `"}`,
	} {
		p := &clientproto.Publication{
			Data:   []byte(data),
			Info:   &clientproto.ClientInfo{User: "ann", Client: "0c7e4a52-63de-4a21-b3f5-7d0a6d3a7b11"},
			Offset: 123456,
			Tags:   clientproto.Tags{Header: "chat"},
		}
		for _, f := range formats {
			b.Run(f.String()+", "+name, func(b *testing.B) {
				out := clientproto.AppendPublication(nil, f, "room:a-rather-usual-name", p)
				b.SetBytes(int64(len(out)))
				b.ReportAllocs()
				for b.Loop() {
					out = clientproto.AppendPublication(out[:0], f, "room:a-rather-usual-name", p)
				}
			})
		}
	}
}

func BenchmarkCommands(b *testing.B) {
	for name, cmd := range map[string]*clientproto.Command{
		"subscribe":     {ID: 7, Subscribe: &clientproto.SubscribeRequest{Channel: "room:a-rather-usual-name", Recover: true, Epoch: "k3jh2", Offset: 123456}},
		"publish 100 B": {ID: 7, Publish: &clientproto.PublishRequest{Channel: "room:a-rather-usual-name", Data: []byte(`{"text":"` + strings.Repeat("word ", 18) + `"}`)}},
		"publish 64 KB": {ID: 7, Publish: &clientproto.PublishRequest{Channel: "room:a-rather-usual-name", Data: []byte(`{"text":"` + strings.Repeat("word ", 13000) + `"}`)}},
	} {
		for _, f := range formats {
			frame := clientproto.AppendCommand(nil, f, cmd)
			b.Run(f.String()+", "+name, func(b *testing.B) {
				b.SetBytes(int64(len(frame)))
				b.ReportAllocs()
				for b.Loop() {
					for _, err := range clientproto.Commands(frame, f, limits) {
						if err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

func BenchmarkAppendReply(b *testing.B) {
	r := &clientproto.Reply{ID: 7, Subscribe: &clientproto.SubscribeResult{Recoverable: true, Positioned: true, Epoch: "k3jh2", Offset: 123456, Recovered: true, WasRecovering: true}}
	for _, f := range formats {
		b.Run(f.String(), func(b *testing.B) {
			var out []byte
			b.ReportAllocs()
			for b.Loop() {
				out = clientproto.AppendReply(out[:0], f, r)
			}
		})
	}
}
