//go:build tools

// Package sanity pins csi-sanity. It has a module of its own because it raises the CSI spec to a version with which
// the kubelet of hack/cluster/go.mod does not compile.
package sanity

import _ "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
