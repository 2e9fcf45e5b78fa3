// Package codec encrypts what Temporal keeps: inputs, results, heartbeats, queries and failures travel and rest as
// AES-256-GCM, and only clients and workers that hold the key can read them.
//
// It knows keys and payloads, not what is in them; objects in S3 are not its concern. Workflow ids, types, queues and
// search attributes stay readable: the server needs them. Start reading at Read (a key file) and Keys.Encode;
// http.go is the endpoint by which the Temporal UI shows payloads.
package codec

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	commonpb "go.temporal.io/api/common/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"
)

// Metadata of an encrypted payload. The key id stands beside the data, so that keys can be changed one after another.
const (
	Encoding     = "binary/encrypted"
	metaCipher   = "encryption-cipher"
	metaKey      = "encryption-key-id"
	cipherName   = "AES-256-GCM"
	associated   = "opencharacter/codec/1/" // with the key id: what is sealed under one name opens under no other
	maxPlaintext = 64 << 20                 // far above what Temporal takes
)

// ErrKey is what errors.Is finds where a payload cannot be opened with the keys at hand.
var ErrKey = errors.New("codec: no key opens this payload")

// Keys encrypt with the first and decrypt with any. They are a converter.PayloadCodec, safe for concurrent use.
// The nil *Keys has none: it leaves what it gets as it is, and says what is missing where a payload is encrypted.
type Keys struct {
	ids  []string // the first encrypts
	aead map[string]cipher.AEAD
}

// IDs are the names of the keys; the first encrypts.
func (k *Keys) IDs() []string {
	if k == nil {
		return nil
	}
	return k.ids
}

// Only is one of the keys alone; nil when there is none of that name.
func (k *Keys) Only(id string) *Keys {
	if k == nil || k.aead[id] == nil {
		return nil
	}
	return &Keys{ids: []string{id}, aead: map[string]cipher.AEAD{id: k.aead[id]}}
}

func (k *Keys) add(id string, key []byte) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	if k.aead == nil {
		k.aead = map[string]cipher.AEAD{}
	}
	if k.aead[id] != nil {
		return fmt.Errorf("key %s stands twice", id)
	}
	if k.aead[id], err = cipher.NewGCM(block); err != nil {
		return err
	}
	k.ids = append(k.ids, id)
	return nil
}

// Encode encrypts every payload whole, its metadata with it.
func (k *Keys) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	if k == nil {
		return payloads, nil
	}
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		plain, err := proto.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("codec: encode payload %d: %w", i, err)
		}
		if len(plain) > maxPlaintext {
			return nil, fmt.Errorf("codec: payload %d has %d bytes, the limit is %d", i, len(plain), maxPlaintext)
		}
		out[i] = k.seal(plain)
	}
	return out, nil
}

func (k *Keys) seal(plain []byte) *commonpb.Payload {
	id := k.ids[0]
	aead := k.aead[id]
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	_, _ = rand.Read(nonce) // never fails: the program ends where there is no randomness
	return &commonpb.Payload{
		Metadata: map[string][]byte{converter.MetadataEncoding: []byte(Encoding), metaCipher: []byte(cipherName), metaKey: []byte(id)},
		Data:     aead.Seal(nonce, nonce, plain, []byte(associated+id)),
	}
}

// Decode opens what is encrypted and leaves the rest, such as the input of a run that was started with plain JSON.
func (k *Keys) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		if string(p.GetMetadata()[converter.MetadataEncoding]) != Encoding {
			out[i] = p
			continue
		}
		plain, err := k.open(p)
		if err != nil {
			return nil, err
		}
		out[i] = &commonpb.Payload{}
		if err := proto.Unmarshal(plain, out[i]); err != nil {
			return nil, fmt.Errorf("codec: the decrypted payload is not one: %w", err)
		}
	}
	return out, nil
}

func (k *Keys) open(p *commonpb.Payload) ([]byte, error) {
	id := string(p.Metadata[metaKey])
	if c := string(p.Metadata[metaCipher]); c != cipherName || !validID.MatchString(id) {
		return nil, fmt.Errorf("codec: this payload was encrypted by another program (cipher %.40q): read it with that program's codec", c)
	}
	if k == nil {
		return nil, fmt.Errorf("%w: it is encrypted with key %s; name the file that holds it with --codec-key-file", ErrKey, id)
	}
	aead := k.aead[id]
	if aead == nil {
		return nil, fmt.Errorf("%w: it is encrypted with key %s, the key file holds %s; add the line of key %s to it", ErrKey, id, strings.Join(k.ids, ", "), id)
	}
	if len(p.Data) < aead.NonceSize()+aead.Overhead() {
		return nil, fmt.Errorf("codec: an encrypted payload of %d bytes is damaged", len(p.Data))
	}
	plain, err := aead.Open(nil, p.Data[:aead.NonceSize()], p.Data[aead.NonceSize():], []byte(associated+id))
	if err != nil {
		return nil, fmt.Errorf("%w: it names key %s, and the key of that name here is another one, or the payload is damaged; use the key file that the run was started with", ErrKey, id)
	}
	return plain, nil
}

// DataConverter is the SDK's JSON with these keys around it.
func (k *Keys) DataConverter() converter.DataConverter {
	return converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), k)
}

// FailureConverter encrypts messages and stack traces of failures too, when there are keys: they may quote texts.
func (k *Keys) FailureConverter() converter.FailureConverter {
	return temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{DataConverter: k.DataConverter(), EncodeCommonAttributes: k != nil})
}

// Message is what a failure says.
func (k *Keys) Message(f *failurepb.Failure) string {
	f = proto.Clone(f).(*failurepb.Failure)
	converter.DecodeCommonFailureAttributes(k.DataConverter(), f)
	return f.GetMessage()
}
