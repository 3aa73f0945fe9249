;; More than there is room for in its memory.
(func $scan (param $bundle i32) (result i32)
  (call $find (local.get $bundle))
  (i32.store (i32.const 520) (i32.const 10000000))
  (i32.const 512))
