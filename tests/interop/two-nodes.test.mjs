import { tell } from './stories.mjs';
import { postgresTwoNodes } from './support/setups.mjs';

tell(postgresTwoNodes);
