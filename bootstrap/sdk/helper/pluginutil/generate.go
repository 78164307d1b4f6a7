// SPDX-License-Identifier: MPL-2.0

// Package pluginutil holds what both ends of a plugin connection share: the
// environment a host gives to a plugin process, and the multiplexing of many
// mounts over one process.
package pluginutil

//go:generate sh -c "cd ../.. && protoc -I. --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative helper/pluginutil/multiplexing.proto"
