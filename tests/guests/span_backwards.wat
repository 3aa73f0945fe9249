(func $scan (param $bundle i32) (result i32)
  (call $find (local.get $bundle))
  (i64.store (i32.const 2080) (i64.const 2)) (i64.store (i32.const 2088) (i64.const 1))
  (i32.const 512))
