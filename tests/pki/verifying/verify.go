// Verify asks Go's crypto/x509 about chains: one JSON list in, one JSON list of reasons out, "" where it believes.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log"
	"os"
	"time"
)

type asked struct {
	Presented [][]byte
	Anchors   [][]byte
	At        int64
	Role      string
	Key       string
	Pem       string
}

func parsed(ders [][]byte) []*x509.Certificate {
	found := make([]*x509.Certificate, 0, len(ders))
	for _, der := range ders {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			log.Fatal(err)
		}
		found = append(found, certificate)
	}
	return found
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	made := x509.NewCertPool()
	for _, certificate := range certificates {
		made.AddCert(certificate)
	}
	return made
}

func verdict(one asked) string {
	if one.Key != "" {
		if _, err := tls.X509KeyPair([]byte(one.Pem), []byte(one.Key)); err != nil {
			return err.Error()
		}
	}
	usage := map[string]x509.ExtKeyUsage{
		"client": x509.ExtKeyUsageClientAuth, "server": x509.ExtKeyUsageServerAuth, "any": x509.ExtKeyUsageAny,
	}[one.Role]
	chain := parsed(one.Presented)
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         pool(parsed(one.Anchors)),
		Intermediates: pool(chain[1:]),
		CurrentTime:   time.Unix(one.At, 0),
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return err.Error()
	}
	return ""
}

func main() {
	var all []asked
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		log.Fatal(err)
	}
	reasons := make([]string, 0, len(all))
	for _, one := range all {
		reasons = append(reasons, verdict(one))
	}
	if err := json.NewEncoder(os.Stdout).Encode(reasons); err != nil {
		log.Fatal(err)
	}
}
