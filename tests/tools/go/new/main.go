// Command new walks through the life of a volume over a current grpc-go, as dell's csc does.
//
// For unix:///abs that library sends "localhost" as the :authority. It cannot resolve the other forms by itself; with
// the passthrough resolver, the default of every client that still calls grpc.Dial, it sends them percent-encoded.
package main

import (
	"context"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"flocker-csi.test/walkthrough"
)

func main() {
	walkthrough.Main("new", func(endpoint string) (*grpc.ClientConn, error) {
		target := endpoint
		if !strings.HasPrefix(endpoint, "unix://") {
			target = "passthrough:///" + endpoint
		}
		return grpc.NewClient(
			target,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
				return walkthrough.Dial(endpoint, 10*time.Second)
			}),
		)
	})
}
