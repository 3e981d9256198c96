//! A state on one line of a counterexample.

use std::fmt;

use crate::state::{Mode, Piece, Sender, Socket, State, Sweep, Tx};

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", tx(self.tx), sender(self.sender))?;
        write!(f, " | psock[{}]", queue(&self.psock_queue))?;
        if !self.ingress_skb.is_empty() || !self.in_hand.is_empty() {
            let (aside, hand) = (queue(&self.ingress_skb), queue(&self.in_hand));
            write!(f, " aside[{aside}] in hand[{hand}]")?;
        }
        let (waits, flies) = (queue(&self.receive_queue), queue(&self.flight));
        write!(f, " tcp[{waits}]<-[{flies}]")?;
        write!(f, " end {:?}", self.end)?;
        write!(f, " | {} -> {}", socket(self.from), socket(self.to))?;
        write!(f, " readers {:?} read {}", self.readers, self.read)?;
        if self.edge {
            f.write_str(" edge")?;
        }
        if self.mode == Mode::Detaching {
            write!(f, " | detaching, agent {:?}", self.agent)?;
        }
        if self.retires {
            let mark = if self.retiring {
                "marked"
            } else {
                "not marked"
            };
            write!(f, " | retiring, sender {mark}, agent {:?}", self.agent)?;
        }
        if self.sweep != Sweep::None {
            write!(f, " | sweep {:?}", self.sweep)?;
        }
        if let Some(fault) = self.fault {
            write!(f, " | {fault:?}")?;
        }
        Ok(())
    }
}

/// `r`: redirected; in parentheses: came before.
fn queue(pieces: &[Piece]) -> String {
    let texts: Vec<String> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Redirected(byte) => format!("r{byte}"),
            Piece::Segment(byte) => byte.to_string(),
            Piece::Again(byte) => format!("({byte})"),
            Piece::Fin => "FIN".to_owned(),
        })
        .collect();
    texts.join(" ")
}

fn tx(tx: Tx) -> String {
    match tx {
        Tx::Start => "TX_START".to_owned(),
        Tx::Redirect => "TX_REDIRECT".to_owned(),
        Tx::Kernel(reason) => format!("TX_KERNEL({reason:?})"),
    }
}

fn sender(sender: Sender) -> String {
    match sender {
        Sender::AtRest => String::new(),
        between => format!("{between:?}"),
    }
}

fn socket(socket: Socket) -> String {
    let maps = match (socket.maps.socks, socket.maps.targets) {
        (true, true) => "socks+targets",
        (true, false) => "socks",
        _ => "plain",
    };
    let blocks = if socket.blocks() { " blocks" } else { "" };
    format!("{maps}{blocks}")
}
