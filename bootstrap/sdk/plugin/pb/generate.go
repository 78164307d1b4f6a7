// SPDX-License-Identifier: MPL-2.0

// Package pb holds the messages and services that a backend plugin and its
// host exchange, and their translation from and to the types of package
// logical.
package pb

//go:generate sh -c "cd ../.. && protoc -I. --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative plugin/pb/*.proto"
