// Command old walks through the life of a volume over grpc-go 1.19.0, the library that rexray's csc is built with.
//
// That library uses the endpoint string as the name of the server, so the plugin gets the endpoint itself, including the
// socket path, as the :authority of every request.
package main

import (
	"google.golang.org/grpc"

	"flocker-csi.test/walkthrough"
)

func main() {
	walkthrough.Main("old", func(endpoint string) (*grpc.ClientConn, error) {
		return grpc.Dial(endpoint, grpc.WithInsecure(), grpc.WithDialer(walkthrough.Dial))
	})
}
