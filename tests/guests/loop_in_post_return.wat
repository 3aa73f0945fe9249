;; Called after the answer was read.
(func $scanned (param $answer i32)
  (loop $again (br $again)))
