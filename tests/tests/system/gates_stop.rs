//! gates_stop
