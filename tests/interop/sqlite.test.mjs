import { tell } from './stories.mjs';
import { sqliteOneNode } from './support/setups.mjs';

tell(sqliteOneNode);
