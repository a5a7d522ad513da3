// The canonical ABI of the world `policy` by hand, as far as this policy needs it, so that no Go module has to be fetched.
package main

import "unsafe"

// Request is what a pick knows without asking.
type Request struct {
	Key, Random, ClientHi, ClientLo uint64
	Attempt                         uint32
	NowUs                           uint64
}

// Backends are parallel lists: entry i of each is the same backend.
type Backends struct {
	IDs     []uint64
	Weights []uint32
	Usable  []uint8
}

// backends are those of the last update.
var backends Backends

// Ready appends the backends to choose from: usable, and not tried before unless all were.
func (r Request) Ready(to []uint32) []uint32 {
	from := len(to)
	for i, usable := range backends.Usable {
		if usable != 0 && (r.Attempt == 0 || hostTried(uint32(i)) == 0) {
			to = append(to, uint32(i))
		}
	}
	if len(to) > from || r.Attempt == 0 {
		return to
	}
	return Request{}.Ready(to)
}

// Header gives the first field of this name. It is valid until the pick ends.
func Header(name string) (string, bool) {
	hostHeader(unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), unsafe.Pointer(&result))
	if result[0]&0xff == 0 {
		return "", false
	}
	return unsafe.String((*byte)(at(result[1])), result[2]), true
}

// ActiveAll gives the requests in flight to each backend. It is valid until the pick ends.
func ActiveAll() []uint32 {
	hostActiveAll(unsafe.Pointer(&result))
	return unsafe.Slice((*uint32)(at(result[0])), result[1])
}

//go:wasmimport trimtab:policy/request@0.1.1 header
func hostHeader(name unsafe.Pointer, length uint32, result unsafe.Pointer)

//go:wasmimport trimtab:policy/request@0.1.1 tried
func hostTried(i uint32) uint32

//go:wasmimport trimtab:policy/pool@0.1.1 active-all
func hostActiveAll(result unsafe.Pointer)

// Where the host and this program put what does not fit into one number. Pointers have 32 bits.
var result [4]uint32

// What the host wrote into, kept from the collector until the call ends.
var buffers [][]uint64

func at(address uint32) unsafe.Pointer { return unsafe.Pointer(uintptr(address)) }

//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	buffer := make([]uint64, (size+15)/8)
	buffers = append(buffers, buffer)
	pointer := unsafe.Pointer(&buffer[0])
	if oldSize != 0 {
		copy(unsafe.Slice((*byte)(pointer), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return pointer
}

//go:wasmexport trimtab:policy/picker@0.1.1#configure
func exportConfigure(json unsafe.Pointer, length uint32) unsafe.Pointer {
	buffers = nil
	result[0] = 0 // fine
	return unsafe.Pointer(&result)
}

// The record `snapshot` of wit/picker.wit: a number and eight lists, each an address and a length.
type snapshot struct {
	generation                                                          uint64
	ids, addresses, weights, ramps, zones, tiers, usable, labels [2]uint32
}

func list[T any](from [2]uint32) []T {
	return append([]T(nil), unsafe.Slice((*T)(at(from[0])), from[1])...)
}

//go:wasmexport trimtab:policy/picker@0.1.1#update
func exportUpdate(raw unsafe.Pointer) {
	from := (*snapshot)(raw)
	backends = Backends{list[uint64](from.ids), list[uint32](from.weights), list[uint8](from.usable)}
	buffers = nil
}

//go:wasmexport trimtab:policy/picker@0.1.1#pick
func exportPick(key, random, clientHi, clientLo uint64, attempt uint32, nowUs uint64) unsafe.Pointer {
	index, ok := pick(Request{key, random, clientHi, clientLo, attempt, nowUs})
	clear(buffers)
	buffers = buffers[:0]
	result[0], result[1] = 0, index
	if ok {
		result[0] = 1
	}
	return unsafe.Pointer(&result)
}
