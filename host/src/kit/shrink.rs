//! From a situation that breaks a rule to a small one that still does.
//!
//! Owns the order in which things are left out. It must not know rules: it is told whether a scene fails.

use super::scene::{Scene, Spot, Step};
use crate::{config::author::BackendState, pool::Figures};

/// Scenes that are tried at most.
const TRIES_MAX: usize = 600;

/// Makes a failing scene smaller, as far as some hundred tries go. One that is delicate keeps its first backend, weights
/// and loads.
pub(super) fn shrink(scene: Scene, is_delicate: bool, fails: impl Fn(&Scene) -> bool) -> Scene {
    let mut work = Work {
        scene,
        tries: 0,
        fails,
    };
    loop {
        let before = work.scene.clone();
        work.drop_steps();
        work.drop_spots(is_delicate);
        if !is_delicate {
            work.simplify();
        }
        if work.scene == before || work.tries >= TRIES_MAX {
            return work.scene;
        }
    }
}

struct Work<F> {
    scene: Scene,
    tries: usize,
    fails: F,
}

impl<F: Fn(&Scene) -> bool> Work<F> {
    /// Keeps the other scene if it fails too.
    fn attempt(&mut self, other: Scene) -> bool {
        if self.tries >= TRIES_MAX || other == self.scene {
            return false;
        }
        self.tries += 1;
        let fails = (self.fails)(&other);
        if fails {
            self.scene = other;
        }
        fails
    }

    /// Halves first, then quarters, down to single steps.
    fn drop_steps(&mut self) {
        let mut length = self.scene.steps.len();
        while length > 0 {
            let mut at = 0;
            while at < self.scene.steps.len() {
                let mut other = self.scene.clone();
                let end = (at + length).min(other.steps.len());
                other.steps.drain(at..end);
                if !self.attempt(other) {
                    at += length;
                }
            }
            length /= 2;
        }
    }

    fn drop_spots(&mut self, keeps_first: bool) {
        let numbers: Vec<u32> = self.scene.spots.iter().map(|spot| spot.number).collect();
        // A large pool by halves, so that the tries suffice.
        let mut length = numbers.len() / 2;
        while length > 1 {
            for chunk in numbers.chunks(length) {
                let mut other = self.scene.clone();
                for number in chunk {
                    if !self.must_stay(*number, keeps_first) {
                        other = other.without(*number);
                    }
                }
                self.attempt(other);
            }
            length /= 2;
        }
        for number in numbers {
            if !self.must_stay(number, keeps_first) {
                let other = self.scene.without(number);
                self.attempt(other);
            }
        }
    }

    fn must_stay(&self, number: u32, keeps_first: bool) -> bool {
        self.scene.focus == Some(number) || (keeps_first && number == 0)
    }

    fn simplify(&mut self) {
        let changes: [fn(&mut Spot); 6] = [
            |spot| spot.figures = Figures::default(),
            |spot| spot.ramp = 100,
            |spot| spot.tier = 0,
            |spot| (spot.zone, spot.is_labelled) = (None, false),
            |spot| spot.weight = 1,
            |spot| spot.state = BackendState::Up,
        ];
        let numbers: Vec<u32> = self.scene.spots.iter().map(|spot| spot.number).collect();
        for number in numbers {
            for change in changes {
                let other = self.scene.with(number, change);
                self.attempt(other);
            }
        }
        let other = Scene {
            panic_threshold: 0,
            ..self.scene.clone()
        };
        self.attempt(other);
        self.simplify_requests();
    }

    fn simplify_requests(&mut self) {
        for at in 0..self.scene.steps.len() {
            let Some(Step::Pick(ask)) = self.scene.steps.get(at).cloned() else {
                continue;
            };
            let mut fewer: Vec<Vec<u32>> = vec![Vec::new()];
            fewer.extend(ask.tried.iter().map(|number| vec![*number]));
            for tried in fewer {
                self.replace(at, |ask| ask.tried.clone_from(&tried));
            }
            self.replace(at, |ask| ask.user = 0);
            self.replace(at, |ask| ask.noise = 0);
        }
    }

    fn replace(&mut self, at: usize, change: impl FnOnce(&mut super::scene::Ask)) {
        let mut other = self.scene.clone();
        if let Some(Step::Pick(ask)) = other.steps.get_mut(at) {
            // Fewer, never others.
            let tried = ask.tried.len();
            change(ask);
            if ask.tried.len() <= tried {
                self.attempt(other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::scene::Ask, *};

    #[test]
    fn what_does_not_matter_is_left_out() {
        let mut scene = Scene::of((0..40).map(Spot::plain).collect());
        scene.spots[7].weight = 9;
        scene.spots[7].figures.active = 3;
        scene.steps = (0..50)
            .map(|number| {
                Step::Pick(Ask {
                    user: number,
                    noise: number,
                    tried: vec![1, 2],
                })
            })
            .collect();
        // It fails as long as backend 7 has a weight above 5 and anybody asks with a backend tried.
        let fails = |scene: &Scene| {
            scene.spots.iter().any(|spot| spot.number == 7 && spot.weight > 5)
                && scene.asks().any(|ask| !ask.tried.is_empty())
        };
        let small = shrink(scene, false, fails);
        assert_eq!(small.spots.len(), 2, "{small}");
        assert_eq!(
            small.spots.iter().find(|spot| spot.number == 7).unwrap().figures,
            Figures::default()
        );
        let asks: Vec<_> = small.asks().collect();
        assert_eq!(
            (asks.len(), asks[0].tried.len(), asks[0].user),
            (1, 1, 0),
            "{small}"
        );
    }

    #[test]
    fn a_delicate_scene_keeps_its_first_backend_and_its_weights() {
        let mut scene = Scene::of((0..8).map(Spot::plain).collect());
        scene.spots.iter_mut().for_each(|spot| spot.weight = 3);
        let small = shrink(scene, true, |scene| !scene.spots.is_empty());
        assert_eq!(
            (small.spots.len(), small.spots[0].number, small.spots[0].weight),
            (1, 0, 3)
        );
    }
}
