;; The least that a policy can be, as a core module with its world embedded: no imports, no optional interfaces, and none
;; of any SDK. Its memory never grows: nothing that it is told is kept. It picks the backend that the key numbers.
(module
  (memory (export "memory") 16)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "trimtab:policy/picker@VERSION#configure") (param i32 i32) (result i32)
    (i32.store8 (i32.const 64) (i32.const 0))
    (i32.const 64))
  (func (export "trimtab:policy/picker@VERSION#update") (param i32))
  (func (export "trimtab:policy/picker@VERSION#pick") (param i64 i64 i64 i64 i32 i64) (result i32)
    (i32.store8 (i32.const 64) (i32.const 1))
    (i32.store offset=4 (i32.const 64) (i32.wrap_i64 (local.get 0)))
    (i32.const 64)))
