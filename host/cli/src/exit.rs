//! Exit codes: docs/results.md. Programs outside this repository read them.

use sluice_protocol::ending::State;

/// It worked.
pub(crate) const SUCCESS: u8 = 0;
/// Of several operations at least one did not succeed; or what was to be verified does not hold.
pub(crate) const NOT_ALL: u8 = 1;
/// No machine is meant, so that nothing was made.
pub(crate) const NO_MACHINES: u8 = 123;
/// The script ran into its time limit.
pub(crate) const TIMED_OUT: u8 = 124;
/// `sluice` itself failed: usage, network, permission, refused request.
pub(crate) const FAILED: u8 = 125;
/// A gate or the machine's owner said no.
pub(crate) const BLOCKED: u8 = 126;
/// Error, expired, interrupted, unsupported, or failed without a process.
pub(crate) const ERROR: u8 = 127;
/// Canceled, or left with Ctrl-C.
pub(crate) const CANCELED: u8 = 130;

/// The code for one operation. `exit_code` is the script's, 128+n for a signal, -1 where no process ended.
pub(crate) fn of_operation(state: State, exit_code: Option<i32>) -> u8 {
    match state {
        State::Succeeded => SUCCESS,
        // An exit code that does not fit (Windows has such) must not come out as another one, least of all as 0.
        State::Failed => exit_code
            .and_then(|code| u8::try_from(code).ok())
            .filter(|code| *code != 0)
            .unwrap_or(ERROR),
        State::TimedOut => TIMED_OUT,
        State::Blocked => BLOCKED,
        State::Canceled => CANCELED,
        State::Unsupported | State::Expired | State::Error | State::Interrupted => ERROR,
        State::Held
        | State::Queued
        | State::Delivered
        | State::Accepted
        | State::Checking
        | State::Running => FAILED,
    }
}

/// The code for the operations of one job.
pub(crate) fn of_operations(operations: &[(State, Option<i32>)]) -> u8 {
    match operations {
        [] => FAILED,
        [(state, exit_code)] => of_operation(*state, *exit_code),
        several if several.iter().all(|(state, _)| *state == State::Succeeded) => SUCCESS,
        _ => NOT_ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operation_has_the_code_of_the_documented_table() {
        let table = [
            (State::Succeeded, Some(0), 0),
            (State::Failed, Some(3), 3),
            (State::Failed, Some(255), 255),
            (State::Failed, Some(137), 137),
            (State::Failed, Some(-1), 127),
            (State::Failed, Some(256), 127),
            (State::Failed, Some(0), 127),
            (State::Failed, None, 127),
            (State::TimedOut, Some(143), 124),
            (State::Blocked, Some(-1), 126),
            (State::Unsupported, Some(-1), 127),
            (State::Expired, Some(-1), 127),
            (State::Error, Some(-1), 127),
            (State::Interrupted, Some(-1), 127),
            (State::Canceled, Some(143), 130),
        ];
        for (state, exit_code, expected) in table {
            assert_eq!(
                of_operation(state, exit_code),
                expected,
                "{state:?} {exit_code:?}"
            );
            assert_eq!(
                of_operations(&[(state, exit_code)]),
                expected,
                "{state:?} {exit_code:?}"
            );
        }
        for state in State::ALL {
            assert_eq!(
                of_operation(*state, Some(-1)) == 0,
                *state == State::Succeeded,
                "{state:?}"
            );
        }
    }

    #[test]
    fn several_operations_are_all_or_not() {
        let ok = (State::Succeeded, Some(0));
        assert_eq!(of_operations(&[ok, ok]), 0);
        assert_eq!(of_operations(&[ok, (State::Failed, Some(3))]), 1);
        assert_eq!(of_operations(&[ok, (State::Blocked, Some(-1))]), 1);
        assert_eq!(of_operations(&[]), 125);
    }
}
