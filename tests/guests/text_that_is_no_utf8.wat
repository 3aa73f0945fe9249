(data $words (i32.const 1024) "r1script \ff\feabcd")
