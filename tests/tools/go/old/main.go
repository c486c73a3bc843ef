// Command old walks through the life of a volume over grpc-go 1.19.0, the library that rexray's csc is built with.
//
// That library takes whatever it is given as the name of the server, so the plugin sees the endpoint itself, socket
// path and all, as the :authority of every request.
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
