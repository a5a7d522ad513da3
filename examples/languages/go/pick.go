// Sticky sessions in Go. ../README.md says what it does; trimtab.go is the way to the host.
package main

func fnv1a(text string) uint32 {
	hash := uint32(0x811c9dc5)
	for i := 0; i < len(text); i++ {
		hash = (hash ^ uint32(text[i])) * 16777619
	}
	return hash
}

func leastLoaded(ready []uint32) uint32 {
	active := ActiveAll()
	best := ready[0]
	for _, i := range ready[1:] {
		if uint64(active[i])*uint64(backends.Weights[best]) < uint64(active[best])*uint64(backends.Weights[i]) {
			best = i
		}
	}
	return best
}

// ready is used again for each pick, so that picking allocates little.
var ready []uint32

func pick(request Request) (uint32, bool) {
	ready = request.Ready(ready[:0])
	if len(ready) == 0 {
		return 0, false
	}
	if session, ok := Header("x-session"); ok {
		return ready[fnv1a(session)%uint32(len(ready))], true
	}
	return leastLoaded(ready), true
}

func main() {}
