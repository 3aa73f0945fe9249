(func $scan (param $bundle i32) (result i32)
  (call $find (local.get $bundle))
  (i32.store (i32.const 2064) (i32.const -1))
  (i32.const 512))
