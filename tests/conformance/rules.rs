//! What every well-behaved policy keeps to, whichever algorithm it is.

use trimtab::{policy::Answer, pool::Snapshot};

use crate::traffic::Ask;

/// The rule that an answer breaks, if it does.
pub(crate) fn check(answer: Answer, ask: &Ask, snapshot: &Snapshot) -> Result<(), String> {
    let is_free = |id| !ask.tried.contains(id);
    let index = match answer {
        Answer::Index(index) => index,
        Answer::Abstain if snapshot.usable == 0 => return Ok(()),
        Answer::Abstain => return Err("has no opinion though a backend is usable".into()),
        Answer::Reject(status) => return Err(format!("rejects the request with {status}")),
    };
    let Some(member) = snapshot.members.get(index as usize) else {
        return Err(format!("picks {index} of {} backends", snapshot.members.len()));
    };
    if member.weight == 0 {
        return Err(format!("picks {index}, which has weight 0"));
    }
    if !member.usable {
        return Err(format!("picks {index}, which is not usable"));
    }
    let mut others = snapshot.members.iter().filter(|member| member.usable);
    if !is_free(member.backend.id) && others.any(|member| is_free(member.backend.id)) {
        return Err(format!("picks {index} again, though others are untried"));
    }
    Ok(())
}
