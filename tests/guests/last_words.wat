;; The last line before a trap is quoted in the error.
(data $last (i32.const 3000) "\1b]0;owned\07\1b[2Jblocked: no\0d\0aallowed: yes\e2\80\ae")
(func $scan (param $bundle i32) (result i32)
  (call $emit (i32.const 3) (i32.const 3000) (i32.const 43))
  (unreachable))
