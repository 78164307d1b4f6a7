// SPDX-License-Identifier: MPL-2.0

package pb

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

func connectionToProto(c *logical.Connection) *Connection {
	if c == nil {
		return nil
	}
	return &Connection{
		RemoteAddr:      c.RemoteAddr,
		RemotePort:      int32(c.RemotePort),
		ConnectionState: tlsStateToProto(c.ConnState),
	}
}

func connectionFromProto(c *Connection) (*logical.Connection, error) {
	if c == nil {
		return nil, nil
	}
	state, err := tlsStateFromProto(c.ConnectionState)
	if err != nil {
		return nil, err
	}
	return &logical.Connection{
		RemoteAddr: c.RemoteAddr,
		RemotePort: int(c.RemotePort),
		ConnState:  state,
	}, nil
}

func tlsStateToProto(s *tls.ConnectionState) *ConnectionState {
	if s == nil {
		return nil
	}
	var chains []*CertificateChain
	for _, chain := range s.VerifiedChains {
		chains = append(chains, chainToProto(chain))
	}
	return &ConnectionState{
		Version:                     uint32(s.Version),
		HandshakeComplete:           s.HandshakeComplete,
		DidResume:                   s.DidResume,
		CipherSuite:                 uint32(s.CipherSuite),
		NegotiatedProtocol:          s.NegotiatedProtocol,
		NegotiatedProtocolIsMutual:  true,
		ServerName:                  s.ServerName,
		PeerCertificates:            chainToProto(s.PeerCertificates),
		VerifiedChains:              chains,
		SignedCertificateTimestamps: s.SignedCertificateTimestamps,
		OcspResponse:                s.OCSPResponse,
		TlsUnique:                   s.TLSUnique,
	}
}

func tlsStateFromProto(s *ConnectionState) (*tls.ConnectionState, error) {
	if s == nil {
		return nil, nil
	}
	peer, err := chainFromProto(s.PeerCertificates)
	if err != nil {
		return nil, err
	}
	var chains [][]*x509.Certificate
	for _, chain := range s.VerifiedChains {
		certs, err := chainFromProto(chain)
		if err != nil {
			return nil, err
		}
		chains = append(chains, certs)
	}
	return &tls.ConnectionState{
		Version:                     uint16(s.Version),
		HandshakeComplete:           s.HandshakeComplete,
		DidResume:                   s.DidResume,
		CipherSuite:                 uint16(s.CipherSuite),
		NegotiatedProtocol:          s.NegotiatedProtocol,
		NegotiatedProtocolIsMutual:  true,
		ServerName:                  s.ServerName,
		PeerCertificates:            peer,
		VerifiedChains:              chains,
		SignedCertificateTimestamps: s.SignedCertificateTimestamps,
		OCSPResponse:                s.OcspResponse,
		TLSUnique:                   s.TlsUnique,
	}, nil
}

func chainToProto(certs []*x509.Certificate) *CertificateChain {
	if len(certs) == 0 {
		return nil
	}
	out := &CertificateChain{}
	for _, cert := range certs {
		out.Certificates = append(out.Certificates, &Certificate{Asn1Data: cert.Raw})
	}
	return out
}

func chainFromProto(chain *CertificateChain) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, c := range chain.GetCertificates() {
		cert, err := x509.ParseCertificate(c.GetAsn1Data())
		if err != nil {
			return nil, fmt.Errorf("decode certificate of the connection: %w", err)
		}
		out = append(out, cert)
	}
	return out, nil
}
