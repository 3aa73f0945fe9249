(func $scan (param $bundle i32) (result i32)
  (unreachable))
