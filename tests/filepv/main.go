// Command filepv is CometBFT's own file signer behind a pipe: the reference that Highwater's rule is compared with.
//
//	filepv DIRECTORY
//
// It reads frames on standard input and answers each with one frame on standard output. A frame is one byte that says
// what it is, the length of what follows as four big-endian bytes, and that many bytes.
//
//	N  chain id      forget everything: a new signer for that chain with the key of tests/vectors (32 times 0x42)
//	L                load the key and the state from their files again, as after a restart
//	M  message       a privval message as it travels, less its length prefix
//
// The answers: A and the response as it travels; P and the text of a panic; D when there is nothing to say.
package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"

	cometed25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/privval"
	privvalproto "github.com/cometbft/cometbft/proto/tendermint/privval"
)

type signer struct {
	keyPath   string
	statePath string
	chain     string
	pv        *privval.FilePV
}

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: filepv DIRECTORY"))
	}
	s := &signer{
		keyPath:   filepath.Join(os.Args[1], "priv_validator_key.json"),
		statePath: filepath.Join(os.Args[1], "priv_validator_state.json"),
	}
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		kind, body, err := readFrame(in)
		if err == io.EOF {
			return
		}
		if err != nil {
			fail(err)
		}
		answer, text := s.answer(kind, body)
		if err := writeFrame(out, answer, text); err != nil {
			fail(err)
		}
	}
}

// answer never takes the program down: a panic is an answer too.
func (s *signer) answer(kind byte, body []byte) (answer byte, text []byte) {
	defer func() {
		if reason := recover(); reason != nil {
			answer, text = 'P', []byte(fmt.Sprint(reason))
		}
	}()
	switch kind {
	case 'N':
		seed := bytes.Repeat([]byte{0x42}, ed25519.SeedSize)
		key := cometed25519.PrivKey(ed25519.NewKeyFromSeed(seed))
		privval.NewFilePV(key, s.keyPath, s.statePath).Save()
		s.chain = string(body)
		s.load()
	case 'L':
		s.load()
	case 'M':
		var message privvalproto.Message
		if err := message.Unmarshal(body); err != nil {
			return 'P', []byte(err.Error())
		}
		// Its error says what the response says already.
		response, _ := privval.DefaultValidationRequestHandler(s.pv, message, s.chain)
		encoded, err := response.Marshal()
		if err != nil {
			return 'P', []byte(err.Error())
		}
		return 'A', encoded
	default:
		fail(fmt.Errorf("an unknown frame %q", kind))
	}
	return 'D', nil
}

func (s *signer) load() {
	s.pv = privval.LoadOrGenFilePV(s.keyPath, s.statePath)
}

func readFrame(in io.Reader) (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err := io.ReadFull(in, body)
	return head[0], body, err
}

func writeFrame(out *bufio.Writer, kind byte, body []byte) error {
	head := [5]byte{kind}
	binary.BigEndian.PutUint32(head[1:], uint32(len(body)))
	out.Write(head[:])
	out.Write(body)
	return out.Flush()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "filepv:", err)
	os.Exit(1)
}
