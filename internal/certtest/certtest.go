// Package certtest makes certificates for tests and benchmarks. It panics if it
// cannot.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"time"
)

// An Authority signs certificates, which are valid for an hour.
type Authority struct{ cert tls.Certificate }

// NewAuthority makes an authority that nobody trusts yet.
func NewAuthority() *Authority {
	a := &Authority{}
	a.cert = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// Config has a certificate for these hosts, each a name or an IP address, as a
// server and as a client. It trusts what the authority has signed.
func (a *Authority) Config(hosts ...string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert.Leaf)
	return &tls.Config{Certificates: []tls.Certificate{a.issue(hosts)}, RootCAs: roots}
}

// Files writes a certificate like Config's, and its key, to PEM files in dir.
func (a *Authority) Files(dir string, hosts ...string) (cert, key string) {
	c := a.issue(hosts)
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	check(err)
	return write(dir, "cert.pem", "CERTIFICATE", c.Certificate[0]), write(dir, "key.pem", "PRIVATE KEY", der)
}

// CAFile writes the authority's own certificate to a PEM file in dir.
func (a *Authority) CAFile(dir string) string {
	return write(dir, "ca.pem", "CERTIFICATE", a.cert.Certificate[0])
}

func (a *Authority) issue(hosts []string) tls.Certificate {
	c := &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, host)
		}
	}
	return a.sign(c)
}

// sign makes a certificate with a key of its own. An authority without a
// certificate gets one that signs itself.
func (a *Authority) sign(c *x509.Certificate) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert.Leaf, a.cert.PrivateKey
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	check(err)
	leaf, err := x509.ParseCertificate(der)
	check(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func write(dir, name, kind string, der []byte) string {
	file := filepath.Join(dir, name)
	check(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return file
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
