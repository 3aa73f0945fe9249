(func $scan (param $bundle i32) (result i32)
  (call $find (local.get $bundle))
  (i32.store8 (i32.const 2056) (i32.const 9))
  (i32.const 512))
