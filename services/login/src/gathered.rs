//! What logins ask of the account store. In a storm many ask the same at the same time: their questions go together, in
//! one statement, and their answers come back one by one.

use std::{sync::Arc, time::Duration};

use shardkeep_cluster::{Gather, Pace, Unanswered};
use shardkeep_store::{
    self as store, Database,
    accounts::{
        self, Credentials, Raised,
        logins::{self, Rules},
    },
};

use crate::{LoginError, revocations::Revocations};

/// Every question is of a connection, and so many there are at most: nothing is refused here.
fn reads(connections: usize) -> Pace {
    Pace {
        most: 256,
        interval: Duration::from_millis(5),
        waiting: connections,
        deadline: Duration::from_secs(10),
    }
}

/// A commit waits for the disk, and what else a welcome says is asked for meanwhile: more go together.
fn logins(connections: usize) -> Pace {
    Pace { most: logins::MOST, interval: Duration::from_millis(10), ..reads(connections) }
}

/// The database's error, which is everybody's whose question went with it.
#[derive(Debug, Clone)]
pub(crate) struct Failed(Arc<store::Error>);

pub(crate) struct Gathered {
    credentials: Gather<(), String, Option<Credentials>, Failed>,
    logins: Gather<(), Raised, bool, Failed>,
}

impl Gathered {
    /// Followers are told of those whom a login displaces, whether or not anybody waits for its outcome.
    pub(crate) fn new(
        database: &Database,
        rules: Rules,
        revocations: Arc<Revocations>,
        connections: usize,
    ) -> Self {
        let (of_names, of_logins) = (database.clone(), database.clone());
        Self {
            credentials: Gather::new("credentials", reads(connections), move |(), names: Vec<String>| {
                let database = of_names.clone();
                Box::pin(async move { Ok(accounts::credentials_of(&database, &names).await?) })
            }),
            logins: Gather::new("logins", logins(connections), move |(), from: Vec<Raised>| {
                let (database, rules, revocations) = (of_logins.clone(), rules.clone(), revocations.clone());
                Box::pin(async move {
                    let doubt = revocations.doubt();
                    let let_in = logins::log_in(&database, &from, &rules).await?;
                    let entered = from.iter().zip(&let_in).filter(|(_, let_in)| **let_in);
                    revocations.tell(entered.map(|(from, _)| entered_from(*from)), &rules.cause);
                    doubt.resolved();
                    Ok(let_in)
                })
            }),
        }
    }

    pub(crate) async fn credentials(&self, name: &str) -> Result<Option<Credentials>, LoginError> {
        Ok(self.credentials.ask(&(), name.to_owned()).await?)
    }

    /// Raises the account's generation from here; `None`: it is another one by now, or somebody is in the way.
    pub(crate) async fn log_in(&self, from: Raised) -> Result<Option<Raised>, LoginError> {
        Ok(self.logins.ask(&(), from).await?.then(|| entered_from(from)))
    }
}

fn entered_from(from: Raised) -> Raised {
    Raised { generation: from.generation.next(), ..from }
}

impl From<store::Error> for Failed {
    fn from(error: store::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl From<Unanswered> for Failed {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Late | Unanswered::BrokenOff => store::Error::away(),
            Unanswered::Full => store::Error::Busy,
            Unanswered::LeftOut => store::Error::Corrupt(why.to_string()),
        }
        .into()
    }
}

impl From<Failed> for LoginError {
    fn from(Failed(error): Failed) -> Self {
        Self::Store(error)
    }
}
