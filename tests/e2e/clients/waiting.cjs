// What has come and nobody asked for yet, or is asked for and has not come yet; in order.
'use strict';

class Waiting {
  constructor() {
    this.kept = [];
    this.waiting = [];
  }
  emit(value) {
    const next = this.waiting.shift();
    next ? next(value) : this.kept.push(value);
  }
  next() {
    return this.kept.length ? Promise.resolve(this.kept.shift()) : new Promise((done) => this.waiting.push(done));
  }
}

module.exports = { Waiting };
