;; What changed of the requests in flight, told with a pick, so that a guest that asks does not leave WebAssembly for it.
(module
  ;; The host's `pool.active-changes`.
  (import "" "ask" (func $ask (result i64)))
  (global $told (mut i64) (i64.const 0))
  (global $waits (mut i32) (i32.const 0))
  ;; Before a pick.
  (func (export "tell") (param i64)
    (global.set $told (local.get 0))
    (global.set $waits (i32.const 1)))
  ;; The guest's `pool.active-changes`: what was told, once, and what the host says from then on.
  (func (export "changes") (result i64)
    (if (i32.eqz (global.get $waits))
      (then (return (call $ask))))
    (global.set $waits (i32.const 0))
    (global.get $told))
  ;; After a pick: 1 if the guest took what it was told, 0 if not, and then it is forgotten.
  (func (export "was-taken") (result i32)
    (i32.eqz (global.get $waits))
    (global.set $waits (i32.const 0)))
  ;; For guests that want nothing called after a pick.
  (func (export "nothing") (param i32)))
