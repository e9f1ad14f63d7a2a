// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"disdel/internal/store"
)

const (
	formatVersion = 1
	magicBytes    = 8
	crcBytes      = 4
	idBytes       = 16
	manifestBytes = magicBytes + 8 + 4 + idBytes + crcBytes
	trailerBytes  = idBytes + crcBytes
	statusHead    = magicBytes + crcBytes
	entryHead     = magicBytes + crcBytes + sha256.Size
)

// chunkBytes is the data of a full chunk. Larger ones bring no more speed, see
// BenchmarkChunk, and cost each worker memory.
const chunkBytes = 256 << 10

// maxChunkBytes bounds the chunks that a reader accepts, so that another
// version may choose another size.
const maxChunkBytes = 1 << 20

// maxObjectBytes bounds what a manifest may claim.
const maxObjectBytes = 1 << 50

// kind keeps one sort of value from being read as another.
type kind byte

const (
	kindObject kind = 'o'
	kindStatus kind = 's'
	kindEntry  kind = 'l'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func magic(k kind) [magicBytes]byte {
	return [magicBytes]byte{'d', 'i', 's', 'd', 'e', 'l', byte(k), formatVersion}
}

// checksum covers the key and the parts of a value.
func checksum(key string, parts ...[]byte) uint32 {
	crc := crc32.Checksum([]byte(key), castagnoli)
	for _, part := range parts {
		crc = crc32.Update(crc, castagnoli, part)
	}
	return crc
}

// uploadID names one upload, and for ever the object that it becomes.
type uploadID [idBytes]byte

// manifest describes a whole object.
type manifest struct {
	total uint64
	chunk uint32 // data bytes of each chunk but the last
	id    uploadID
}

// chunks returns how many there are.
func (m manifest) chunks() uint64 {
	return (m.total + uint64(m.chunk) - 1) / uint64(m.chunk)
}

// length returns the data bytes of the chunk with the given number.
func (m manifest) length(number uint64) int {
	return int(min(uint64(m.chunk), m.total-number*uint64(m.chunk)))
}

// stored returns the bytes of the object's values.
func (m manifest) stored() uint64 { return manifestBytes + m.total + m.chunks()*trailerBytes }

func (m manifest) encode(key string) []byte {
	head := magic(kindObject)
	value := append(make([]byte, 0, manifestBytes), head[:]...)
	value = binary.LittleEndian.AppendUint64(value, m.total)
	value = binary.LittleEndian.AppendUint32(value, m.chunk)
	value = append(value, m.id[:]...)
	return binary.LittleEndian.AppendUint32(value, checksum(key, value))
}

func parseManifest(key string, value []byte) (manifest, error) {
	if len(value) != manifestBytes {
		return manifest{}, fmt.Errorf("manifest of %d bytes, want %d: %w", len(value), manifestBytes, store.ErrCorrupt)
	}
	body, sum := value[:manifestBytes-crcBytes], value[manifestBytes-crcBytes:]
	if binary.LittleEndian.Uint32(sum) != checksum(key, body) {
		return manifest{}, fmt.Errorf("the manifest's checksum is wrong: %w", store.ErrCorrupt)
	}
	if [magicBytes]byte(body) != magic(kindObject) {
		return manifest{}, fmt.Errorf("manifest of an unknown format: %w", store.ErrCorrupt)
	}
	body = body[magicBytes:]
	m := manifest{
		total: binary.LittleEndian.Uint64(body), chunk: binary.LittleEndian.Uint32(body[8:]), id: uploadID(body[12:]),
	}
	if m.chunk == 0 || m.chunk > maxChunkBytes || m.total > maxObjectBytes {
		return manifest{}, fmt.Errorf("manifest claims %d bytes in chunks of %d: %w", m.total, m.chunk, store.ErrCorrupt)
	}
	return m, nil
}

func chunkChecksum(number uint64, body []byte) uint32 {
	var prefix [8]byte
	binary.LittleEndian.PutUint64(prefix[:], number)
	return crc32.Update(crc32.Checksum(prefix[:], castagnoli), castagnoli, body)
}

// sealChunk appends the trailer to a chunk's data.
func sealChunk(data []byte, id uploadID, number uint64) []byte {
	data = append(data, id[:]...)
	return binary.LittleEndian.AppendUint32(data, chunkChecksum(number, data))
}

// openChunk returns the data of a chunk of the object that m describes.
func openChunk(value []byte, m manifest, number uint64) ([]byte, error) {
	if want := m.length(number) + trailerBytes; len(value) != want {
		return nil, fmt.Errorf("chunk %d has %d bytes, want %d: %w", number, len(value), want, store.ErrCorrupt)
	}
	body, sum := value[:len(value)-crcBytes], value[len(value)-crcBytes:]
	if binary.LittleEndian.Uint32(sum) != chunkChecksum(number, body) {
		return nil, fmt.Errorf("chunk %d has a wrong checksum: %w", number, store.ErrCorrupt)
	}
	data, id := body[:len(body)-idBytes], body[len(body)-idBytes:]
	if uploadID(id) != m.id {
		return nil, fmt.Errorf("chunk %d is another object's: %w", number, store.ErrCorrupt)
	}
	return data, nil
}

func encodeStatus(key string, data []byte) []byte {
	head := magic(kindStatus)
	value := append(make([]byte, 0, statusHead+len(data)), head[:]...)
	value = binary.LittleEndian.AppendUint32(value, checksum(key, head[:], data))
	return append(value, data...)
}

// parseStatus keeps value.
func parseStatus(key string, value []byte) ([]byte, error) {
	if len(value) < statusHead || len(value) > statusHead+store.MaxStatusBytes {
		return nil, fmt.Errorf("status of %d bytes: %w", len(value), store.ErrCorrupt)
	}
	head, data := value[:magicBytes], value[statusHead:]
	if binary.LittleEndian.Uint32(value[magicBytes:]) != checksum(key, head, data) {
		return nil, fmt.Errorf("the status's checksum is wrong: %w", store.ErrCorrupt)
	}
	if [magicBytes]byte(head) != magic(kindStatus) {
		return nil, fmt.Errorf("status of an unknown format: %w", store.ErrCorrupt)
	}
	return data, nil
}

// encodeEntry frames the entry whose head is next. The hash is stored so that
// the chain can be checked from any entry on.
func encodeEntry(log string, next store.Head, payload []byte) []byte {
	head := magic(kindEntry)
	value := append(make([]byte, 0, entryHead+len(payload)), head[:]...)
	value = binary.LittleEndian.AppendUint32(value, checksum(log, head[:], next.Hash[:], payload))
	value = append(value, next.Hash[:]...)
	return append(value, payload...)
}

// parseEntry keeps value. The chain is the caller's to check.
func parseEntry(log string, sequence uint64, value []byte) (store.Entry, error) {
	if len(value) < entryHead || len(value) > entryHead+store.MaxEntryBytes {
		return store.Entry{}, fmt.Errorf("entry %d has %d bytes: %w", sequence, len(value), store.ErrCorrupt)
	}
	head, body := value[:magicBytes], value[magicBytes+crcBytes:]
	if binary.LittleEndian.Uint32(value[magicBytes:]) != checksum(log, head, body) {
		return store.Entry{}, fmt.Errorf("entry %d has a wrong checksum: %w", sequence, store.ErrCorrupt)
	}
	if [magicBytes]byte(head) != magic(kindEntry) {
		return store.Entry{}, fmt.Errorf("entry %d has an unknown format: %w", sequence, store.ErrCorrupt)
	}
	return store.Entry{
		Head:    store.Head{Sequence: sequence, Hash: [sha256.Size]byte(body)},
		Payload: body[sha256.Size:],
	}, nil
}
