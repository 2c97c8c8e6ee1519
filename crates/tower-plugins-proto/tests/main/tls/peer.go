// Either side of go-plugin's AutoMTLS, with the certificate and the settings of its Go side.
//
//	peer serve VERSION         reads the host's certificate from PLUGIN_CLIENT_CERT, writes a handshake line
//	peer dial VERSION          writes its certificate as PEM, reads a handshake line
//
// VERSION is 12 or 13. A connection is told "hello" and asked for a line; what came of it is written.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	version := uint16(tls.VersionTLS13)
	if os.Args[2] == "12" {
		version = tls.VersionTLS12
	}
	certificate := generate()
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS12,
		MaxVersion:   version,
		ServerName:   "localhost",
		NextProtos:   []string{"h2"},
	}
	switch os.Args[1] {
	case "serve":
		serve(config)
	case "dial":
		dial(config)
	}
}

func serve(config *tls.Config) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(os.Getenv("PLUGIN_CLIENT_CERT"))) {
		panic("PLUGIN_CLIENT_CERT has no certificate")
	}
	config.ClientCAs = pool
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	der := base64.RawStdEncoding.EncodeToString(config.Certificates[0].Certificate[0])
	fmt.Printf("1|1|tcp|%s|grpc|%s\n", listener.Addr(), der)
	for {
		connection, err := listener.Accept()
		check(err)
		talk(tls.Server(connection, config))
	}
}

func dial(config *tls.Config) {
	block := pem.Block{Type: "CERTIFICATE", Bytes: config.Certificates[0].Certificate[0]}
	check(pem.Encode(os.Stdout, &block))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "|")
		der, err := base64.RawStdEncoding.DecodeString(fields[5])
		check(err)
		server, err := x509.ParseCertificate(der)
		check(err)
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AddCert(server)
		connection, err := net.Dial(fields[2], fields[3])
		check(err)
		talk(tls.Client(connection, config))
	}
}

func talk(connection *tls.Conn) {
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(20 * time.Second))
	_, err := fmt.Fprintln(connection, "hello")
	heard := ""
	if err == nil {
		heard, err = bufio.NewReader(connection).ReadString('\n')
	}
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	state := connection.ConnectionState()
	fmt.Println(tls.VersionName(state.Version), state.NegotiatedProtocol, strings.TrimSpace(heard))
}

func generate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	check(err)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	check(err)
	usage := x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "localhost", Organization: []string{"HashiCorp"}},
		DNSNames:              []string{"localhost"},
		NotBefore:             time.Now().Add(-30 * time.Second),
		NotAfter:              time.Now().Add(262980 * time.Hour),
		KeyUsage:              usage | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
