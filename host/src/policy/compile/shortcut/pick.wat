;; A pick whose answer is one number, in place of an address where it lies.
(module
  (import "" "pick" (func $pick (param i64 i64 i64 i64 i32 i64) (result i32)))
  ;; What the guest wants to be called with that address when the answer was read.
  (import "" "post" (func $post (param i32)))
  (import "" "tell" (func $tell (param i64)))
  (import "" "was-taken" (func $was-taken (result i32)))
  (import "" "memory" (memory 0))
  ;; Bits 0 to 31 are the index, 32 to 39 whether there is one, 40 whether the guest took what it was told.
  (func (export "pick") (param i64 i64 i64 i64 i32 i64 i64) (result i64)
    (local $answer i32) (local $packed i64)
    (call $tell (local.get 6))
    (local.set $answer
      (call $pick
        (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5)))
    ;; As the canonical ABI has it.
    (if (i32.and (local.get $answer) (i32.const 3))
      (then (unreachable)))
    (local.set $packed
      (i64.or
        (i64.or
          (i64.load32_u offset=4 (local.get $answer))
          (i64.shl (i64.load8_u (local.get $answer)) (i64.const 32)))
        (i64.shl (i64.extend_i32_u (call $was-taken)) (i64.const 40))))
    (call $post (local.get $answer))
    (local.get $packed)))
