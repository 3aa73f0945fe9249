(func $scan (param $bundle i32) (result i32)
  (i32.add (call $scan (local.get $bundle)) (i32.const 1)))
