//! A state as one line of a trace.

use std::fmt;

use crate::state::{Call, Database, Heartbeat, KEYS, Keys, Node, Phase, State};

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            write!(f, "node{index}({node}) ")?;
        }
        for (index, database) in self.databases.iter().enumerate().take(usize::from(self.primary) + 1) {
            write!(f, "db{index}({database}) ")?;
        }
        for (key, revoke) in self.revokes.iter().enumerate() {
            write!(f, "{}:", name(key))?;
            match revoke.call {
                Call::Idle => write!(f, "-")?,
                Call::Sent { .. } => write!(f, "sent")?,
                Call::Committed { seq, .. } => write!(f, "committed as {seq}")?,
                Call::Waiting { waited, seq, .. } => write!(f, "waits for {seq} since {waited}")?,
                Call::Done => write!(f, "ACKNOWLEDGED")?,
            }
            if let Some(age) = revoke.committed {
                write!(f, ", committed {age} ago")?;
            }
            write!(f, "; ")?;
        }
        for (row, age) in self.reaper.iter().enumerate().filter(|(_, age)| **age != 0) {
            write!(f, "row {row} unchanged since {age}; ")?;
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            Phase::Off => return write!(f, "off"),
            Phase::Started => write!(f, "started")?,
            Phase::Registered => write!(f, "registered")?,
            Phase::Running => write!(f, "lease {} applied {}", self.lease, self.applied)?,
            Phase::Unregistered => write!(f, "no row, lease {} applied {}", self.lease, self.applied)?,
        }
        if self.denied != 0 {
            write!(f, " denies {}", names(self.denied))?;
        }
        if self.timeline != 0 {
            write!(f, " timeline 2")?;
        }
        match self.heartbeat {
            Heartbeat::None => {}
            Heartbeat::Sent { age } => write!(f, " beat sent {age} ago")?,
            Heartbeat::Answered { age, answer: Some(answer) } => write!(f, " beat sent {age} ago answered {}", answer.head)?,
            Heartbeat::Answered { answer: None, .. } => write!(f, " beat refused")?,
        }
        if let Some(answer) = self.fetched {
            write!(f, " fetched {}", answer.head)?;
        }
        if let Some(key) = self.fill {
            write!(f, " fills {}", name(usize::from(key)))?;
        }
        if self.paused {
            write!(f, " PAUSED")?;
        }
        if self.cut {
            write!(f, " CUT")?;
        }
        Ok(())
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log")?;
        for seq in 1..=self.head() {
            let key = self.seq.iter().position(|&at| at == seq);
            write!(f, " {}", key.map_or('?', name))?;
        }
        if let Some(key) = self.limbo {
            write!(f, " [{}]", name(usize::from(key)))?;
        }
        write!(f, ", rows")?;
        for row in &self.registry {
            match row.owner {
                Some(node) => write!(f, " {node}:{}", row.applied)?,
                None => write!(f, " -")?,
            }
            if row.timeline != 0 {
                write!(f, "'")?;
            }
        }
        Ok(())
    }
}

fn name(key: usize) -> char {
    ["A", "B"][key].chars().next().unwrap_or('?')
}

fn names(keys: Keys) -> String {
    (0..KEYS).filter(|key| keys & 1 << key != 0).map(name).collect()
}
