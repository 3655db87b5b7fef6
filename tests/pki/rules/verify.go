// What Go's crypto/x509 says about a chain: "OK", or its error. Arguments: anchor, chain (PEM files, leaf first), time.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strconv"
	"time"
)

func certificates(path string) (found []*x509.Certificate) {
	data, err := os.ReadFile(path)
	for block, rest := pem.Decode(data); err == nil && block != nil; block, rest = pem.Decode(rest) {
		var certificate *x509.Certificate
		certificate, err = x509.ParseCertificate(block.Bytes)
		found = append(found, certificate)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(0)
	}
	return found
}

func main() {
	anchors, presented := certificates(os.Args[1]), certificates(os.Args[2])
	seconds, err := strconv.ParseInt(os.Args[3], 10, 64)
	if err != nil {
		panic(err)
	}
	options := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   time.Unix(seconds, 0),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, anchor := range anchors {
		options.Roots.AddCert(anchor)
	}
	for _, above := range presented[1:] {
		options.Intermediates.AddCert(above)
	}
	if _, err := presented[0].Verify(options); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("OK")
}
