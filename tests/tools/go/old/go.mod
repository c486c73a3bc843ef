module flocker-csi.test/old

go 1.21

require (
	flocker-csi.test/walkthrough v0.0.0
	google.golang.org/grpc v1.19.0
)

require (
	github.com/container-storage-interface/spec v1.2.0 // indirect
	github.com/golang/protobuf v1.3.2 // indirect
	golang.org/x/net v0.0.0-20180826012351-8a410e7b638d // indirect
	golang.org/x/sys v0.0.0-20180830151530-49385e6e1522 // indirect
	golang.org/x/text v0.3.0 // indirect
	google.golang.org/genproto v0.0.0-20180817151627-c66870c02cf8 // indirect
)

replace flocker-csi.test/walkthrough => ../walkthrough
