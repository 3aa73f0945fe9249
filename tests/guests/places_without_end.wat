;; One finding with three million places.
(func $scan (param $bundle i32) (result i32)
  (if (i32.eq (memory.grow (i32.const 900)) (i32.const -1)) (then (unreachable)))
  (call $find (local.get $bundle))
  (i32.store (i32.const 2096) (i32.const 65536)) (i32.store (i32.const 2100) (i32.const 3000000))
  (i32.const 512))
