//! From the bytes that an operator submits to the text that runs.

mod header;
mod interpreter;
mod text;

pub use header::{
    As, Header, HeaderError, MAX_DECLARED, ParameterDeclaration, ParameterType, Parameters,
    Requirements,
};
pub use interpreter::{Interpreter, InterpreterError, Language};
pub use text::{MAX_SCRIPT, ScriptText, TextError};
