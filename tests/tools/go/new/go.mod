module flocker-csi.test/new

go 1.25

require (
	flocker-csi.test/walkthrough v0.0.0
	google.golang.org/grpc v1.80.0
)

require (
	github.com/container-storage-interface/spec v1.12.0 // indirect
	golang.org/x/net v0.49.0 // indirect
	golang.org/x/sys v0.40.0 // indirect
	golang.org/x/text v0.33.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260120221211-b8f7ae30c516 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)

replace flocker-csi.test/walkthrough => ../walkthrough

// Its packages live in a module of their own in every version that the current grpc-go knows.
exclude google.golang.org/genproto v0.0.0-20180817151627-c66870c02cf8
